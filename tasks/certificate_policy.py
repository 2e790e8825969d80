"""A tenant's policy on certificates: which images step 6 lets VMs be made of."""

from __future__ import annotations

from blocks.errors import Denied
from blocks.images.certification import why_not_certified
from blocks.resources import Image
from blocks.state import Build, Caller, StateStore
from tasks.certificate_build import is_trial


def require_certificate(build: Build, caller: Caller, image: Image, store: StateStore) -> None:
    """Check that an image is certified, where the tenant's policy wants it.

    The trial VM of a certification is let in: it is how an image gets its certificate.

    Raises:
        Denied: It is not, or its file is another one since.
    """
    if not caller.certified_images or is_trial(store, build, image):
        return
    why = why_not_certified(image)
    if why is not None:
        raise Denied(
            f"the tenant {caller.tenant!r} makes VMs of certified images only: {why}",
            hint=f"`fifty image certify {image.reference}`",
        )
