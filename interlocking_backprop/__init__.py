"""Train networks cut by depth over several accelerators, and choose for every component which loss trains it."""

from interlocking_backprop import huggingface
from interlocking_backprop.build import (
    build_e2e_model,
    build_local_model,
    build_model,
    build_nwise_model,
    build_pairwise_model,
)
from interlocking_backprop.component import Component
from interlocking_backprop.huggingface import from_huggingface
from interlocking_backprop.model import InterlockingBackpropModel
from interlocking_backprop.nets.heads import auxiliary_heads
from interlocking_backprop.partition import Partition, partition
from interlocking_backprop.runtime.allocator import keep_freed_memory
from interlocking_backprop.schedule.action import Action
from interlocking_backprop.schedule.costs import ComponentCosts, Costs
from interlocking_backprop.schedule.list_scheduling import list_schedule
from interlocking_backprop.schedule.order import depth_first
from interlocking_backprop.schedule.placement import balanced_placement
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.schedule.simulate import Simulation, simulate
from interlocking_backprop.schedule.validate import ScheduleError, validate
from interlocking_backprop.scheme import Scheme, decaying, deep_supervision, e2e, local, nwise, pairwise
from interlocking_backprop.scheme_text import parse_scheme
from interlocking_backprop.streams import Workload
from interlocking_backprop.version import __version__

__all__ = [
    "Action",
    "Component",
    "ComponentCosts",
    "Costs",
    "InterlockingBackpropModel",
    "Partition",
    "Schedule",
    "ScheduleError",
    "Scheme",
    "Simulation",
    "Workload",
    "__version__",
    "auxiliary_heads",
    "balanced_placement",
    "build_e2e_model",
    "build_local_model",
    "build_model",
    "build_nwise_model",
    "build_pairwise_model",
    "decaying",
    "deep_supervision",
    "depth_first",
    "e2e",
    "from_huggingface",
    "huggingface",
    "keep_freed_memory",
    "list_schedule",
    "local",
    "nwise",
    "pairwise",
    "parse_scheme",
    "partition",
    "simulate",
    "validate",
]
