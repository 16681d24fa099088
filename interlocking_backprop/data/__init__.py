"""Image data for classification: data sets by name, and their batches."""

from interlocking_backprop.data.loader import batches
from interlocking_backprop.data.registry import DATA_FORMS, load_data
from interlocking_backprop.data.split import BatchRequest, Data, Split

__all__ = ["DATA_FORMS", "BatchRequest", "Data", "Split", "batches", "load_data"]
