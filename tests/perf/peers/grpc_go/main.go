// Command bench serves the contract with grpc-go and pgx: `bench users` or `bench orders`, as their documentation
// would: a pool, prepared statements (pgx's default), an interceptor that logs each call as JSON.
package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"shop/bench/pb"
	"shop/bench/shared"
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
	user, err := shared.FindUser(ctx, s.pool, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, status.Error(codes.NotFound, "user not found")
	}
	return user, err
}

type orders struct {
	pb.UnimplementedOrderServiceServer
	pool  *pgxpool.Pool
	users *grpc.ClientConn
}

func (s *orders) CreateOrder(ctx context.Context, request *pb.CreateOrderRequest) (*pb.Order, error) {
	var user pb.User
	if err := s.users.Invoke(ctx, shared.GetUser, &pb.GetUserRequest{Id: request.UserId}, &user); err != nil {
		return nil, status.Error(codes.FailedPrecondition, "user not found")
	}
	order, items, total := shared.Price(request)
	_, err := s.pool.Exec(ctx, `INSERT INTO orders
		(id, user_id, status, currency_code, items, total_amount, created_at, updated_at)
		VALUES ($1, $2, 'PENDING', $3, $4, $5, $6, $6)`,
		order.Id, order.UserId, request.CurrencyCode, items, total.String(), order.CreatedAt.AsTime())
	return order, err
}

func logged(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	start := time.Now()
	response, err := next(ctx, request)
	slog.Info("rpc", "method", info.FullMethod, "code", status.Code(err).String(), "duration", time.Since(start))
	return response, err
}

func main() {
	file := shared.Must(os.Create(os.Getenv("LOG_FILE")))
	slog.SetDefault(slog.New(slog.NewJSONHandler(file, nil)))
	config := shared.Must(pgxpool.ParseConfig(os.Getenv("DATABASE_URL")))
	config.MaxConns = 10
	pool := shared.Must(pgxpool.NewWithConfig(context.Background(), config))
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
		server.RegisterService(&service, &orders{pool: pool, users: shared.Must(grpc.NewClient(os.Getenv("USER_SERVICE_URL"), plain))})
	}
	listener := shared.Must(net.Listen("tcp", "127.0.0.1:"+os.Getenv("PORT")))
	shared.Must(0, server.Serve(listener))
}
