"""ConsistentID for ComfyUI: nodes that work with its own samplers, ControlNets and LoRAs."""

try:
    import consistentid  # noqa: F401
except ImportError as error:
    raise ImportError(
        "ComfyUI-ConsistentID needs the package consistentid in the Python that runs ComfyUI; install it with "
        "`python -m pip install -r requirements.txt` in the folder of these nodes"
    ) from error

from .apply import ApplyConsistentID
from .face import AnalyseFace, MixFaces
from .load import LoadConsistentID
from .prompt import FacialPromptText
from .region import RegionWeight

_NODES = {
    "ConsistentIDLoad": (LoadConsistentID, "Load ConsistentID"),
    "ConsistentIDAnalyseFace": (AnalyseFace, "Analyse Face (ConsistentID)"),
    "ConsistentIDMixFaces": (MixFaces, "Mix Faces (ConsistentID)"),
    "ConsistentIDRegionWeight": (RegionWeight, "Region Weight (ConsistentID)"),
    "ConsistentIDFacialPrompt": (FacialPromptText, "Facial Prompt (ConsistentID)"),
    "ConsistentIDApply": (ApplyConsistentID, "Apply ConsistentID"),
}
NODE_CLASS_MAPPINGS = {name: node for name, (node, _) in _NODES.items()}
NODE_DISPLAY_NAME_MAPPINGS = {name: title for name, (_, title) in _NODES.items()}
