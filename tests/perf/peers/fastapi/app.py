"""GET /api/v1/users/{id} as FastAPI's and SQLAlchemy's documentation build it: async session a request, a model out."""

import os
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException
from fastapi.middleware.cors import CORSMiddleware
from pydantic import AliasGenerator, BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from sqlalchemy import ARRAY, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# asyncpg prepares each statement once a connection and keeps it.
engine = create_async_engine(os.environ["DATABASE_URL"], pool_size=10, max_overflow=0)
sessions = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    email: Mapped[str]
    display_name: Mapped[str]
    profile: Mapped[dict[str, Any]] = mapped_column(JSONB)
    state: Mapped[str]
    roles: Mapped[list[str]] = mapped_column(ARRAY(Text))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    version: Mapped[int]

    @property
    def etag(self) -> str:
        return f"v{self.version}"


class UserOut(BaseModel):
    model_config = ConfigDict(from_attributes=True, alias_generator=AliasGenerator(serialization_alias=to_camel))

    id: UUID
    email: str
    display_name: str
    profile: dict[str, Any]
    state: str
    roles: list[str]
    created_at: datetime
    updated_at: datetime
    etag: str


app = FastAPI()
app.add_middleware(CORSMiddleware, allow_origins=["*"])


async def session() -> AsyncIterator[AsyncSession]:
    async with sessions() as opened:
        yield opened


@app.get("/api/v1/users/{user_id}", response_model=UserOut)
async def get_user(user_id: UUID, db: Annotated[AsyncSession, Depends(session)]) -> User:
    user = await db.get(User, user_id)
    if user is None:
        raise HTTPException(404, "User not found")
    return user
