"""The user service: GET /api/v1/users/{id}."""

from uuid import UUID

from common import KnownCaller, Refused, as_json, create_app
from fastapi.responses import Response

FIND = """
    SELECT email, display_name, profile, state, roles, created_at, updated_at, version FROM users WHERE id = $1
"""
app = create_app()


@app.get("/api/v1/users/{user_id}")
async def get_user(user_id: UUID, caller: KnownCaller) -> Response:
    shown = str(user_id)
    is_allowed = caller.is_staff or caller.id == shown
    user = await app.state.pool.fetchrow(FIND, user_id) if is_allowed else None
    if user is None:
        raise Refused(404, "USER_NOT_FOUND", "there is no such user")
    email, display_name, profile, state, roles, created_at, updated_at, version = user
    return as_json(
        {
            "id": shown,
            "email": email,
            "displayName": display_name,
            "profile": profile,
            "state": state,
            "roles": roles,
            "createdAt": created_at,
            "updatedAt": updated_at,
            "etag": f"v{version}",
        }
    )
