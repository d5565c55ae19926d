// Command bench serves the contract with grpc-go and pgx: `bench users` or `bench orders`, as their documentation
// would: a pool, prepared statements (pgx's default), an interceptor that logs each call as JSON.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/shopspring/decimal"
	"google.golang.org/genproto/googleapis/type/money"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shop/bench/pb"
)

const getUser = "/shop.user.v1.UserService/GetUser"

var (
	states = map[string]int32{"ACTIVE": 1, "SUSPENDED": 2, "DELETED": 3}
	roles  = map[string]int32{"USER": 1, "SUPPORT": 2, "ADMIN": 3, "SERVICE": 4}
)

type users struct {
	pb.UnimplementedUserServiceServer
	pool *pgxpool.Pool
}

func (s *users) GetUser(ctx context.Context, request *pb.GetUserRequest) (*pb.User, error) {
	id, err := uuid.Parse(request.Id)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, "id must be a UUID")
	}
	var (
		user             pb.User
		profile          map[string]any
		state            string
		names            []string
		created, updated time.Time
		version          int
	)
	row := s.pool.QueryRow(ctx, `SELECT email, display_name, profile, state, roles, created_at, updated_at, version
		FROM users WHERE id = $1`, id)
	err = row.Scan(&user.Email, &user.DisplayName, &profile, &state, &names, &created, &updated, &version)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, status.Error(codes.NotFound, "user not found")
	}
	if err != nil {
		return nil, err
	}
	user.Id = id.String()
	user.State = states[state]
	for _, name := range names {
		user.Roles = append(user.Roles, roles[name])
	}
	user.CreatedAt, user.UpdatedAt = timestamppb.New(created), timestamppb.New(updated)
	user.Etag = fmt.Sprintf("v%d", version)
	user.Profile, err = structpb.NewStruct(profile)
	return &user, err
}

type orders struct {
	pb.UnimplementedOrderServiceServer
	pool  *pgxpool.Pool
	users *grpc.ClientConn
}

type item struct {
	ProductID string `json:"productId"`
	Name      string `json:"name"`
	Quantity  int32  `json:"quantity"`
	UnitPrice string `json:"unitPrice"`
}

func (s *orders) CreateOrder(ctx context.Context, request *pb.CreateOrderRequest) (*pb.Order, error) {
	var user pb.User
	if err := s.users.Invoke(ctx, getUser, &pb.GetUserRequest{Id: request.UserId}, &user); err != nil {
		return nil, status.Error(codes.FailedPrecondition, "user not found")
	}
	now := time.Now()
	order := &pb.Order{
		Id: uuid.NewString(), UserId: request.UserId, Status: 1, Etag: "v1",
		CreatedAt: timestamppb.New(now), UpdatedAt: timestamppb.New(now),
	}
	total, items := decimal.Zero, []item{}
	for _, line := range request.Items {
		price := decimal.New(line.UnitPrice.GetUnits(), 0).Add(decimal.New(int64(line.UnitPrice.GetNanos()), -9))
		sum := price.Mul(decimal.New(int64(line.Quantity), 0))
		total = total.Add(sum)
		items = append(items, item{line.ProductId, line.Name, line.Quantity, price.String()})
		order.Items = append(order.Items, &pb.OrderItem{
			ProductId: line.ProductId, Name: line.Name, Quantity: line.Quantity,
			UnitPrice: line.UnitPrice, TotalPrice: toMoney(sum, request.CurrencyCode),
		})
	}
	order.TotalAmount = toMoney(total, request.CurrencyCode)
	_, err := s.pool.Exec(ctx, `INSERT INTO orders
		(id, user_id, status, currency_code, items, total_amount, created_at, updated_at)
		VALUES ($1, $2, 'PENDING', $3, $4, $5, $6, $6)`,
		order.Id, order.UserId, request.CurrencyCode, items, total.String(), now)
	return order, err
}

func toMoney(amount decimal.Decimal, currency string) *money.Money {
	units := amount.IntPart()
	nanos := amount.Sub(decimal.New(units, 0)).Shift(9).IntPart()
	return &money.Money{CurrencyCode: currency, Units: units, Nanos: int32(nanos)}
}

func logged(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	start := time.Now()
	response, err := next(ctx, request)
	slog.Info("rpc", "method", info.FullMethod, "code", status.Code(err).String(), "duration", time.Since(start))
	return response, err
}

func main() {
	file := must(os.Create(os.Getenv("LOG_FILE")))
	slog.SetDefault(slog.New(slog.NewJSONHandler(file, nil)))
	config := must(pgxpool.ParseConfig(os.Getenv("DATABASE_URL")))
	config.MaxConns = 10
	pool := must(pgxpool.NewWithConfig(context.Background(), config))
	server := grpc.NewServer(grpc.UnaryInterceptor(logged))
	// Under the names of the contract, whose messages have the same bytes.
	if os.Args[1] == "users" {
		service := pb.UserService_ServiceDesc
		service.ServiceName = "shop.user.v1.UserService"
		server.RegisterService(&service, &users{pool: pool})
	} else {
		service := pb.OrderService_ServiceDesc
		service.ServiceName = "shop.order.v1.OrderService"
		plain := grpc.WithTransportCredentials(insecure.NewCredentials())
		server.RegisterService(&service, &orders{pool: pool, users: must(grpc.NewClient(os.Getenv("USER_SERVICE_URL"), plain))})
	}
	listener := must(net.Listen("tcp", "127.0.0.1:"+os.Getenv("PORT")))
	must(0, server.Serve(listener))
}

func must[T any](value T, err error) T {
	if err != nil {
		slog.Error("failed", "error", err)
		os.Exit(1)
	}
	return value
}
