"""Answers 3DB's scheduler as its client does, with pictures of noise: PORT NAME."""

import sys
import time

import torch
import zmq
from threedb.client import query

DECLARED = {
    "rgb": ([3, 8, 8], "float32"),
    "segmentation": ([1, 8, 8], "int32"),
    "is_correct": ([], "bool"),
    "loss": ([], "float32"),
    "prediction": ([1], "int32"),
    "output": ([10], "float32"),
}


def main(port, name):
    socket = zmq.Context().socket(zmq.REQ)
    socket.connect(f"tcp://localhost:{port}")
    query(socket, "info", name)
    query(socket, "decl", name, declared_outputs=DECLARED)
    dtypes = {key: dtype for key, (_, dtype) in DECLARED.items()}
    while True:
        jobs = query(socket, "pull", name, batch_size=4, last_environment=None, last_model=None)[
            "params_to_render"
        ]
        if not jobs:
            time.sleep(0.05)  # As 3DB's client does, for longer.
        for job in jobs:
            zoom = job.render_args[("StubControl", "zoom")]
            result = {
                "rgb": torch.full((3, 8, 8), zoom / 2),
                "segmentation": torch.full((1, 8, 8), 3, dtype=torch.int32),
                "is_correct": torch.tensor([zoom > 1]),
                "loss": zoom,
                "prediction": torch.tensor([int(10 * zoom)]),
                "output": torch.full((10,), zoom),
            }
            query(socket, "push", name, result_data=result, result_dtypes=dtypes, job=job.id)


if __name__ == "__main__":
    main(*sys.argv[1:])
