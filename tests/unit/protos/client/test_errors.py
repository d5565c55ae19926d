"""ShopError as a value."""

from __future__ import annotations

import pickle

import grpc

from protos.client import FieldViolation, ShopError


def test_an_error_reaches_another_process_whole() -> None:
    error = ShopError(
        "There is no tea.",
        code=grpc.StatusCode.NOT_FOUND,
        reason="TEA_NOT_FOUND",
        domain="shop.tea.v1",
        metadata={"teaId": "1"},
        fields=[FieldViolation("id", "must be a tea", "tea")],
        retry_after=1.5,
    )

    arrived = pickle.loads(pickle.dumps(error))

    assert type(arrived) is ShopError
    assert str(arrived) == "TEA_NOT_FOUND: There is no tea."
    assert vars(arrived) == vars(error)
