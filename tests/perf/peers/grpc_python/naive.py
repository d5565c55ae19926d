"""The contract served as tutorials serve gRPC in Python: a thread pool, the ORM, a session and a commit a call.

`python naive.py users | orders`. The order service asks the user service with one GetUser an order.
"""

import logging
import os
import sys
import uuid
from concurrent import futures
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict
from shop.order.v1 import order_pb2, order_service_pb2_grpc
from shop.user.v1 import user_pb2, user_service_pb2, user_service_pb2_grpc
from sqlalchemy import ARRAY, DateTime, Numeric, Text, create_engine
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

log = logging.getLogger(__name__)
Session = sessionmaker(create_engine(os.environ["DATABASE_URL"]))


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    email: Mapped[str]
    display_name: Mapped[str]
    profile: Mapped[dict[str, Any]] = mapped_column(JSONB)
    state: Mapped[str]
    roles: Mapped[list[str]] = mapped_column(ARRAY(Text))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    version: Mapped[int]


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    user_id: Mapped[uuid.UUID]
    status: Mapped[str]
    currency_code: Mapped[str]
    items: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    total_amount: Mapped[Decimal] = mapped_column(Numeric(24, 9))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class UserServicer(user_service_pb2_grpc.UserServiceServicer):
    def GetUser(self, request, context):
        with Session() as session:
            user = session.get(User, uuid.UUID(request.id))
            if user is None:
                context.abort(grpc.StatusCode.NOT_FOUND, "User not found")
            message = user_pb2.User(
                id=str(user.id),
                email=user.email,
                display_name=user.display_name,
                state=f"USER_STATE_{user.state}",
                roles=[f"ROLE_{role}" for role in user.roles],
                etag=f"v{user.version}",
            )
            ParseDict(user.profile, message.profile)
            message.created_at.FromDatetime(user.created_at)
            message.updated_at.FromDatetime(user.updated_at)
        log.info("GetUser %s", request.id)
        return message


class OrderServicer(order_service_pb2_grpc.OrderServiceServicer):
    def __init__(self):
        channel = grpc.insecure_channel(os.environ["USER_SERVICE_URL"])
        self.users = user_service_pb2_grpc.UserServiceStub(channel)

    def CreateOrder(self, request, context):
        try:
            self.users.GetUser(user_service_pb2.GetUserRequest(id=request.user_id), timeout=5)
        except grpc.RpcError as error:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, error.details())
        message = order_pb2.Order(
            id=str(uuid.uuid4()), user_id=request.user_id, status=order_pb2.ORDER_STATUS_PENDING, etag="v1"
        )
        total = Decimal(0)
        for item in request.items:
            price = item.unit_price.units + Decimal(item.unit_price.nanos) / 10**9
            total += price * item.quantity
            line = message.items.add(
                product_id=item.product_id, name=item.name, quantity=item.quantity, unit_price=item.unit_price
            )
            set_money(line.total_price, price * item.quantity, request.currency_code)
        set_money(message.total_amount, total, request.currency_code)
        now = datetime.now(UTC)
        message.created_at.FromDatetime(now)
        message.updated_at.FromDatetime(now)
        order = Order(
            id=uuid.UUID(message.id),
            user_id=uuid.UUID(request.user_id),
            status="PENDING",
            currency_code=request.currency_code,
            items=[
                {
                    "productId": item.product_id,
                    "name": item.name,
                    "quantity": item.quantity,
                    "unitPrice": str(item.unit_price.units + Decimal(item.unit_price.nanos) / 10**9),
                }
                for item in request.items
            ],
            total_amount=total,
            created_at=now,
            updated_at=now,
        )
        with Session() as session:
            session.add(order)
            session.commit()
        log.info("CreateOrder %s", message.id)
        return message


def set_money(money, amount, currency_code):
    money.currency_code = currency_code
    money.units = int(amount)
    money.nanos = int((amount - int(amount)) * 10**9)


def serve(service):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=10))
    if service == "users":
        user_service_pb2_grpc.add_UserServiceServicer_to_server(UserServicer(), server)
    else:
        order_service_pb2_grpc.add_OrderServiceServicer_to_server(OrderServicer(), server)
    server.add_insecure_port(f"127.0.0.1:{os.environ['PORT']}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, filename=os.environ["LOG_FILE"])
    serve(sys.argv[1])
