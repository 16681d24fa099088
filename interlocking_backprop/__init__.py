"""Train networks cut by depth over several accelerators, and choose for every component which loss trains it."""

from interlocking_backprop.build import (
    build_e2e_model,
    build_local_model,
    build_model,
    build_nwise_model,
    build_pairwise_model,
)
from interlocking_backprop.component import Component
from interlocking_backprop.model import InterlockingBackpropModel
from interlocking_backprop.runtime.allocator import keep_freed_memory
from interlocking_backprop.schedule.action import Action
from interlocking_backprop.schedule.costs import ComponentCosts, Costs
from interlocking_backprop.schedule.list_scheduling import balanced_placement, list_schedule
from interlocking_backprop.schedule.order import depth_first
from interlocking_backprop.schedule.schedule import Schedule
from interlocking_backprop.schedule.simulate import Simulation, simulate
from interlocking_backprop.schedule.validate import ScheduleError, validate
from interlocking_backprop.scheme import Scheme, deep_supervision, e2e, local, nwise, pairwise
from interlocking_backprop.scheme_text import parse_scheme
from interlocking_backprop.streams import Workload

__version__ = "0.1.0"

__all__ = [
    "Action",
    "Component",
    "ComponentCosts",
    "Costs",
    "InterlockingBackpropModel",
    "Schedule",
    "ScheduleError",
    "Scheme",
    "Simulation",
    "Workload",
    "balanced_placement",
    "build_e2e_model",
    "build_local_model",
    "build_model",
    "build_nwise_model",
    "build_pairwise_model",
    "deep_supervision",
    "depth_first",
    "e2e",
    "keep_freed_memory",
    "list_schedule",
    "local",
    "nwise",
    "pairwise",
    "parse_scheme",
    "simulate",
    "validate",
]
