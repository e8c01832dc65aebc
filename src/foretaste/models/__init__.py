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
    "s-pop": "foretaste.models.baselines.spop:SPop",
    "markov": "foretaste.models.baselines.rules:Markov",
    "sr": "foretaste.models.baselines.rules:SequentialRules",
    "ar": "foretaste.models.baselines.rules:AssociationRules",
    "item-knn": "foretaste.models.baselines.item_knn:ItemKNN",
    "s-knn": "foretaste.models.baselines.neighbours:SKNN",
    "vs-knn": "foretaste.models.baselines.neighbours:VSKNN",
    "vstan": "foretaste.models.baselines.vstan:VSTAN",
    "bpr-mf": "foretaste.models.baselines.bpr_mf:BPRMF",
    "fpmc": "foretaste.models.baselines.fpmc:FPMC",
    "fmc": "foretaste.models.baselines.fpmc:FMC",
    "hrm": "foretaste.models.baselines.hrm:HRM",
    "gru4rec": "foretaste.models.baselines.gru4rec:GRU4Rec",
    "sasrec": "foretaste.models.baselines.sasrec:SASRec",
    "gsasrec": "foretaste.models.baselines.sasrec:GSASRec",
    "esasrec": "foretaste.models.baselines.sasrec:ESASRec",
    "caser": "foretaste.models.baselines.caser:Caser",
    "nextitnet": "foretaste.models.baselines.nextitnet:NextItNet",
    "wavenet": "foretaste.models.baselines.nextitnet:WaveNet",
    "youtube-dnn": "foretaste.models.baselines.youtube_dnn:YoutubeDNN",
    "dream": "foretaste.models.baselines.dream:DREAM",
    "shan": "foretaste.models.baselines.shan:SHAN",
    "sdm": "foretaste.models.baselines.sdm:SDM",
    "hpmn": "foretaste.models.baselines.hpmn:HPMN",
}
"""Name -> where it lives. Imported only when asked for."""


def model_class(name: str) -> type[SequenceModel]:
    """The class of a registered model."""
    if name not in MODELS:
        raise ConfigError(f"no model is called '{name}'; {nearest(name, MODELS)}")
    module, _, attribute = MODELS[name].partition(":")
    try:
        found: type[SequenceModel] = getattr(import_module(module), attribute)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ConfigError(f"model '{name}' is registered as '{MODELS[name]}', which is not there: {error}") from error
    return found
