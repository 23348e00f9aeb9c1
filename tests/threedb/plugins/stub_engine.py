"""An engine for 3DB's scheduler that has two models and one environment, and renders nothing."""


class Renderer:
    KEYS = ("rgb", "segmentation")

    @staticmethod
    def enumerate_models(root_folder):
        return ["models/mug.blend", "models/pan.blend"]

    @staticmethod
    def enumerate_environments(root_folder):
        return ["envs/white.blend"]
