"""From a request's parameters to the settings of its answers.

Enters: a checked request. Leaves: `SamplingSettings` for each choice, or an `ApiError` that names the
parameter.
"""

from __future__ import annotations

from dataclasses import replace

from pocketglm.errors import InputError
from pocketglm.generate.model import Model
from pocketglm.generate.sampler import SamplingSettings
from pocketglm.serve.http_errors import ApiError, api_error
from pocketglm.serve.protocol import SamplingRequest
from pocketglm.serve.settings import RequestLimits

SEEDS = 1 << 64


def settings_of(
    request: SamplingRequest, model: Model, limits: RequestLimits, max_tokens: int | None
) -> SamplingSettings:
    """The model's own settings with the request's on top."""
    stop = _stops(request, limits)
    try:
        return model.settings(
            max_new_tokens=max_tokens,
            temperature=request.temperature,
            top_k=request.top_k,
            top_p=request.top_p,
            min_p=request.min_p,
            repetition_penalty=request.repetition_penalty,
            presence_penalty=request.presence_penalty,
            frequency_penalty=request.frequency_penalty,
            seed=None if request.seed is None else request.seed % SEEDS,
            stop=stop or None,
            logit_bias=_biases(request, model, limits),
            ignore_eos=request.ignore_eos,
        )
    except InputError as error:
        raise api_error(error) from None


def choices_of(
    request: SamplingRequest, settings: SamplingSettings, limits: RequestLimits
) -> list[SamplingSettings]:
    """Settings for each of `n` choices: with a seed, every choice has its own that follows from it."""
    count = request.n or 1
    if count > limits.choices:
        raise ApiError(400, f"n is {count}, at most {limits.choices} are allowed", param="n")
    if settings.seed is None:
        return [settings] * count
    return [replace(settings, seed=(settings.seed + index) % SEEDS) for index in range(count)]


def _stops(request: SamplingRequest, limits: RequestLimits) -> tuple[str, ...]:
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    if len(stops) > limits.stops:
        raise ApiError(400, f"{len(stops)} stop strings, at most {limits.stops} are allowed", param="stop")
    if not all(0 < len(text) <= limits.stop_characters for text in stops):
        longest = limits.stop_characters
        raise ApiError(400, f"a stop string must have 1 to {longest} characters", param="stop")
    return tuple(stops)


def _biases(request: SamplingRequest, model: Model, limits: RequestLimits) -> dict[int, float] | None:
    biases = request.logit_bias
    if not biases:
        return None
    if len(biases) > limits.logit_biases:
        message = f"{len(biases)} logit biases, at most {limits.logit_biases} are allowed"
        raise ApiError(400, message, param="logit_bias")
    vocabulary = model.spec.vocab_size
    for token in biases:
        if not (token.isascii() and token.isdecimal() and len(token) < 10 and int(token) < vocabulary):
            message = f"{token[:20]!r} is no token id; the vocabulary has {vocabulary}"
            raise ApiError(400, message, param="logit_bias")
    return {int(token): bias for token, bias in biases.items()}
