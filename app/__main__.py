import gc
from importlib import import_module
from importlib.util import find_spec

if __name__ == "__main__":
    # What imports make stays: collections among it find nothing, and take a tenth of the start.
    gc.set_threshold(20_000, 10, 10)
    from app.cli import app
    from app.commands import accounts  # noqa: F401
    from app.sample import commands  # noqa: F401  # sample

    if find_spec("app.development") is not None:  # the production image has no such folder
        import_module("app.development.commands")
    app(prog_name="python -m app")
