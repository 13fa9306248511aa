from nearfar.cli.main import main

__all__ = ["main"]
