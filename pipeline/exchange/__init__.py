"""Import of features from other tools into the cache, and export to other tools."""

from .exporting import EXPORT_FORMATS, ExportSettings, export_features
from .importing import ImportSettings, import_features
from .summary import ExportSummary, ImportSummary

__all__ = [
    "EXPORT_FORMATS",
    "ExportSettings",
    "ExportSummary",
    "ImportSettings",
    "ImportSummary",
    "export_features",
    "import_features",
]
