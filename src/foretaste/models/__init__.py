"""The models by name. To add one: write its file, add its line here; the battery and the command line follow."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from foretaste.errors import ConfigError, nearest

if TYPE_CHECKING:
    from foretaste.models.contract import SequenceModel

MODELS = {
    "narm": "foretaste.models.narm:NARM",
    "rum-item": "foretaste.models.rum:ItemRUM",
    "rum-feature": "foretaste.models.rum:FeatureRUM",
    "lsamn": "foretaste.models.lsamn:LSAMN",
    "dman": "foretaste.models.dman:DMAN",
    "asars": "foretaste.models.asars:ASARS",
    "pop": "foretaste.models.baselines.pop:Pop",
    "bpr-mf": "foretaste.models.baselines.bpr_mf:BPRMF",
    "fpmc": "foretaste.models.baselines.fpmc:FPMC",
    "recurrent": "foretaste.models.baselines.recurrent:Recurrent",
}
"""Name -> where it lives. Imported only when asked for."""


def model_class(name: str) -> type[SequenceModel]:
    """The class of a registered model."""
    if name not in MODELS:
        raise ConfigError(f"no model is called '{name}'; {nearest(name, MODELS)}")
    module, attribute = MODELS[name].split(":")
    found: type[SequenceModel] = getattr(import_module(module), attribute)
    return found
