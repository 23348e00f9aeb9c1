"""A control of 3DB's with one continuous and one discrete argument."""

from threedb.controls.base_control import PreProcessControl


class StubControl(PreProcessControl):
    def __init__(self, root_folder):
        super().__init__(
            root_folder,
            continuous_dims={"zoom": (0.5, 1.5)},
            discrete_dims={"side": ["left", "right"]},
        )

    def apply(self, context, control_args):
        pass

    def unapply(self, context):
        pass


Control = StubControl
