"""Calls of the Hugging Face hub, whose failures are one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import PipelineError, UsageError


@contextmanager
def hub(repo: str) -> Iterator[Any]:
    """Give the interface of the hub; ``repo`` is the name in the messages.

    Raises:
        UsageError: the hub has no such repository, its name is invalid, or the hub does not let
            this user read or write there.
        PipelineError: the hub cannot be reached, or it fails.
    """
    from huggingface_hub import HfApi  # noqa: PLC0415 -- slow to import, often unneeded
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # noqa: PLC0415
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import logging  # noqa: PLC0415
    from huggingface_hub.utils.tqdm import disable_progress_bars  # noqa: PLC0415

    disable_progress_bars()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # would print each retry
    try:
        yield HfApi(library_name="mser")
    except HFValidationError as error:
        raise UsageError(f"'{repo}' is not a name on the hub: give OWNER/NAME") from error
    except RepositoryNotFoundError as error:
        raise UsageError(
            f"the Hugging Face hub has no '{repo}' that you may read: check the name, or run "
            "'hf auth login'"
        ) from error
    except RevisionNotFoundError as error:
        raise UsageError(f"'{repo}' on the Hugging Face hub has no such --revision") from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise UsageError(
                f"the Hugging Face hub does not let you write to '{repo}' (HTTP {status}): run "
                "'hf auth login' with a token that may"
            ) from error
        raise PipelineError(
            f"the Hugging Face hub refused '{repo}' (HTTP {status}): try again later"
        ) from error
    except (LocalEntryNotFoundError, HTTPError, ConnectionError, RuntimeError) as error:
        raise PipelineError(
            f"the Hugging Face hub could not be reached for '{repo}' ({type(error).__name__}): "
            "check the network and HF_ENDPOINT"
        ) from error
