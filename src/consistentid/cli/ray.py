"""Options of the verbs that can work on Ray."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from consistentid.errors import InvalidSettings

if TYPE_CHECKING:
    from consistentid.dataset.engine import RayOptions


@dataclass(frozen=True)
class OnRay:
    """Whether Ray is used, and how.

    Attributes:
        ray: work on several cores or machines with Ray.
        address: of a running Ray cluster; its machines must see the folders under the same names.
        workers: processes of Ray, each with all models; by default one for every core.
        gpus: for each worker.
    """

    ray: bool = False
    address: str | None = None
    workers: int | None = None
    gpus: float = 0

    def options(self) -> "RayOptions | None":
        """For the engine; None: everything is done in this process.

        Raises:
            InvalidSettings: an option of Ray is given without it.
        """
        from consistentid.dataset.engine import RayOptions

        if not self.ray and (self.address or self.workers or self.gpus):
            raise InvalidSettings("--address, --workers and --gpus are for Ray; add --ray")
        return RayOptions(address=self.address, workers=self.workers, gpus=self.gpus) if self.ray else None
