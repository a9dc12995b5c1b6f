"""Every error a caller can meet, as one small tree; each class carries its HTTP status and stable code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar

from typing_extensions import override

from monkey_coder.models import Exclusion, Problem


class RouterError(Exception):
    """Base of all errors that a caller caused or must know about.

    Attributes:
        status: HTTP status of the answer.
        code: Stable identifier a program may match on.
        retry_after_s: Seconds after which trying again makes sense, or None.
    """

    status: ClassVar[int] = HTTPStatus.INTERNAL_SERVER_ERROR
    code: ClassVar[str] = "internal_error"
    retry_after_s: float | None = None

    def extensions(self) -> Mapping[str, Any]:
        """Further members of the problem document."""
        return {}

    def problem(self) -> Problem:
        """Render as an RFC 9457 problem document."""
        return Problem(
            title=HTTPStatus(self.status).phrase,
            status=int(self.status),
            code=self.code,
            detail=str(self),
            **self.extensions(),
        )


class InvalidRequestError(RouterError):
    """The request is malformed; ``fields`` names each place and what is wrong there."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "invalid_request"

    def __init__(self, detail: str, fields: Sequence[Mapping[str, str]] = ()) -> None:
        super().__init__(detail)
        self.fields = tuple(fields)

    @override
    def extensions(self) -> Mapping[str, Any]:
        return {"errors": [dict(field) for field in self.fields]} if self.fields else {}


class InvalidJsonError(InvalidRequestError):
    """The body is not JSON at all."""

    status = HTTPStatus.BAD_REQUEST
    code = "invalid_json"


class BodyTooLargeError(RouterError):
    """The body exceeds the configured limit."""

    status = HTTPStatus.CONTENT_TOO_LARGE if hasattr(HTTPStatus, "CONTENT_TOO_LARGE") else 413
    code = "body_too_large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the body is larger than the limit of {limit_bytes} bytes")


class UnknownModelError(RouterError):
    """A model ref that is not in the catalog."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "unknown_model"

    def __init__(self, field: str, ref: str, suggestions: Sequence[str] = ()) -> None:
        hint = f"; did you mean {', '.join(suggestions)}?" if suggestions else ""
        super().__init__(f"{field}: {ref!r} is not in the catalog{hint}")
        self.field = field
        self.ref = ref

    @override
    def extensions(self) -> Mapping[str, Any]:
        return {"errors": [{"field": self.field, "message": f"unknown model {self.ref!r}"}]}


class UnknownStrategyError(RouterError):
    """A strategy name that nothing is registered under."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "unknown_strategy"

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"quantum_config.strategies: {name!r} is not one of {', '.join(known)}")


class UnknownDecisionError(RouterError):
    """A decision id that is forged, expired, or not in the log."""

    status = HTTPStatus.NOT_FOUND
    code = "unknown_decision"


class NoEligibleModelError(RouterError):
    """Every model of the catalog was excluded by a gate."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "no_eligible_model"

    def __init__(self, excluded: Sequence[Exclusion]) -> None:
        super().__init__(f"all {len(excluded)} models of the catalog are excluded; see `excluded` for each reason")
        self.excluded = tuple(excluded)

    @override
    def extensions(self) -> Mapping[str, Any]:
        return {"excluded": [exclusion.model_dump() for exclusion in self.excluded]}


class AllUnavailableError(NoEligibleModelError):
    """Models would fit, but none of them is available just now."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "all_models_unavailable"
    retry_after_s = 5.0


class OverloadedError(RouterError):
    """The queue is full, or was too long for too long; the request was not looked at."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "overloaded"
    retry_after_s = 1.0

    def __init__(self, why: str = "the queue is full") -> None:
        super().__init__(f"{why}; try again after the time in Retry-After")


class CatalogError(RouterError):
    """A catalog file, or a model described at run time, that cannot be used; the message names place and mend."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "invalid_catalog"


class SettingsError(RouterError):
    """Settings that contradict each other or are unsafe; the message says what to change."""

    code = "invalid_settings"


class OutcomeTableError(RouterError):
    """An outcome table with a line that cannot be read; the message names file and line."""

    code = "invalid_outcome_table"


class PolicyError(RouterError):
    """A policy file that cannot be loaded: missing, damaged, or made for another state encoding."""

    code = "invalid_policy"


class UnknownPolicyError(PolicyError):
    """A policy of this number is not kept."""

    status = HTTPStatus.NOT_FOUND
    code = "unknown_policy"

    def __init__(self, number: int, where: str, known: Sequence[int]) -> None:
        super().__init__(f"there is no policy {number} in {where}; there are: {', '.join(map(str, known)) or 'none'}")


class NoEarlierPolicyError(PolicyError):
    """There is no policy to go back to."""

    status = HTTPStatus.CONFLICT
    code = "no_earlier_policy"


class LearnerActiveError(RouterError):
    """Another learner is active."""

    code = "learner_active"


class TrainingDivergedError(RouterError):
    """Training was stopped because it diverged; nothing was published."""

    code = "training_diverged"


class StoreUnavailableError(RouterError):
    """The store did not do what it was asked, and may do it later: unreachable, locked, full, or closed."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "store_unavailable"
    retry_after_s = 1.0


class StoreFormatError(RouterError):
    """What is stored cannot be used: damaged, foreign, or of another schema; the message names place and mend."""

    code = "invalid_store"


class UnknownProviderError(RouterError):
    """A provider without models in the catalog."""

    status = HTTPStatus.NOT_FOUND
    code = "unknown_provider"

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"{name!r} has no model in the catalog; its providers are {', '.join(known)}")


class UnsupportedMediaTypeError(RouterError):
    """The body is declared as something other than JSON."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    code = "unsupported_media_type"

    def __init__(self) -> None:
        super().__init__("send the header content-type: application/json; a web page cannot do so unasked")


class UnauthenticatedError(RouterError):
    """The request brings no API key, or none that is good."""

    status = HTTPStatus.UNAUTHORIZED
    code = "unauthenticated"

    def __init__(self, *, given: bool) -> None:
        why = "this API key is unknown or revoked" if given else "an API key is needed"
        super().__init__(f"{why}; send one as `Authorization: Bearer KEY`, `monkey-coder keys create` makes it")
        self.challenge = 'Bearer realm="monkey-coder"' + (', error="invalid_token"' if given else "")


class ForbiddenError(RouterError):
    """The API key is good, and its role does not reach so far."""

    status = HTTPStatus.FORBIDDEN
    code = "forbidden"

    def __init__(self, role: str) -> None:
        super().__init__(f"this needs an API key of the role {role}, or of one above it")
        self.challenge = f'Bearer realm="monkey-coder", error="insufficient_scope", scope="{role}"'


class NothingHereError(RouterError):
    """There is no such path, as far as the caller's key reaches."""

    status = HTTPStatus.NOT_FOUND
    code = "not_found"

    def __init__(self) -> None:
        super().__init__("there is nothing at this path; /openapi.json lists what there is")


class NoApiKeyError(RouterError):
    """What is kept per API key was asked for without one, by a server that asks for none."""

    status = HTTPStatus.CONFLICT
    code = "no_api_key"

    def __init__(self) -> None:
        super().__init__("preferences are kept per API key, and this server has none; `monkey-coder keys create`")


class UnknownKeyError(RouterError):
    """No API key has this id, or none alone has this name."""

    status = HTTPStatus.NOT_FOUND
    code = "unknown_key"

    def __init__(self, named: str, ids: Sequence[str] = ()) -> None:
        """Say which key was meant.

        Args:
            named: The id or name that was given.
            ids: The keys in use of that name, where there are several.
        """
        super().__init__(
            f"{len(ids)} API keys are named {named!r}; say which by its id: {', '.join(ids)}"
            if ids
            else f"no API key is {named!r}; `monkey-coder keys list` shows all"
        )
