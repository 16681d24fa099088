"""Train networks cut by depth over several accelerators, and choose for every component which loss trains it.

The names are those of ``__init__.pyi``. Each is loaded when it is first used, so that schemes and schedules, which need
no torch, can be had without it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
