// Command same serves the contract with grpc-go and pgx, and does the shop's work: `same users` or `same orders`.
package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/shopspring/decimal"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"shop/bench/pb"
	"shop/bench/shared"
)

var (
	// The digits of each currency's smaller unit.
	digits  = map[string]int32{"EUR": 2, "USD": 2, "GBP": 2, "CHF": 2, "SEK": 2, "PLN": 2, "JPY": 0, "KWD": 3}
	visible = regexp.MustCompile(`\S`)

	duration = promauto.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "grpc_server_handling_seconds",
		Buckets: []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5},
	}, []string{"method", "code"})
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
	caller := callerIn(ctx)
	if !caller.isStaff && caller.id != id.String() {
		return nil, status.Error(codes.NotFound, "there is no such user")
	}
	user, err := shared.FindUser(ctx, s.pool, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, status.Error(codes.NotFound, "there is no such user")
	}
	return user, err
}

type orders struct {
	pb.UnimplementedOrderServiceServer
	pool         *pgxpool.Pool
	users        *grpc.ClientConn
	create, kept string
}

func (s *orders) CreateOrder(ctx context.Context, request *pb.CreateOrderRequest) (*pb.Order, error) {
	caller := callerIn(ctx)
	request.UserId = cmp.Or(request.UserId, caller.id)
	if err := validate(request); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if !caller.isStaff && request.UserId != caller.id {
		return nil, status.Error(codes.FailedPrecondition, "there is no such buyer")
	}
	order, items, total := shared.Price(request)
	if total.GreaterThanOrEqual(decimal.New(1, 15)) {
		return nil, status.Error(codes.InvalidArgument, "the total is too large")
	}
	if err := s.requireActive(ctx, request.UserId); err != nil {
		return nil, err
	}
	key := cmp.Or(request.RequestId, uuid.NewString())
	request.RequestId = ""
	fingerprint := sha256.Sum256(shared.Must(proto.MarshalOptions{Deterministic: true}.Marshal(request)))
	response := shared.Must(proto.Marshal(order))
	event := map[string]any{"orderId": order.Id, "userId": order.UserId, "amount": total.String(), "currencyCode": request.CurrencyCode}
	trace := strings.Join(metadata.ValueFromIncomingContext(ctx, "traceparent"), "")
	var id uuid.UUID
	err := s.pool.QueryRow(ctx, s.create, caller.id, key, fingerprint[:], order.Id, response, order.CreatedAt.AsTime(), order.UserId,
		request.CurrencyCode, items, total.String(), uuid.NewString(), uuid.NewString(), event, trace).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return s.keptAnswer(ctx, caller.id, key, fingerprint[:])
	}
	return order, err
}

func validate(request *pb.CreateOrderRequest) error {
	scale, isKnown := digits[request.CurrencyCode]
	switch {
	case uuid.Validate(request.UserId) != nil:
		return errors.New("user_id must be a UUID")
	case request.RequestId != "" && uuid.Validate(request.RequestId) != nil:
		return errors.New("request_id must be a UUID")
	case !isKnown:
		return errors.New("currency_code must be one of ISO 4217")
	case len(request.Items) < 1 || len(request.Items) > 100:
		return errors.New("items must be 1 to 100")
	}
	for n, line := range request.Items {
		unit, step := line.UnitPrice, int64(1)
		for range 9 - scale {
			step *= 10
		}
		switch {
		case len([]rune(line.ProductId)) > 64 || !visible.MatchString(line.ProductId) || strings.Contains(line.ProductId, "\x00"):
			return fmt.Errorf("items[%d].product_id must be 1 to 64 characters and not blank", n)
		case line.Name != "" && (len([]rune(line.Name)) > 255 || !visible.MatchString(line.Name) || strings.Contains(line.Name, "\x00")):
			return fmt.Errorf("items[%d].name must be at most 255 characters and not blank", n)
		case line.Quantity < 1 || line.Quantity > 10000:
			return fmt.Errorf("items[%d].quantity must be 1 to 10000", n)
		case unit == nil || unit.Units < 0 || unit.Nanos < 0 || unit.Nanos > 999_999_999 || int64(unit.Nanos)%step != 0:
			return fmt.Errorf("items[%d].unit_price must be a price in %s", n, request.CurrencyCode)
		case unit.CurrencyCode != "" && unit.CurrencyCode != request.CurrencyCode:
			return errors.New("an order has one currency")
		}
	}
	return nil
}

func (s *orders) requireActive(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	incoming, _ := metadata.FromIncomingContext(ctx)
	for _, name := range []string{"authorization", "x-request-id"} {
		ctx = metadata.AppendToOutgoingContext(ctx, name, strings.Join(incoming[name], ""))
	}
	var user pb.User
	switch err := s.users.Invoke(ctx, shared.GetUser, &pb.GetUserRequest{Id: id}, &user); {
	case status.Code(err) == codes.NotFound:
		return status.Error(codes.FailedPrecondition, "there is no such buyer")
	case err != nil:
		return status.Error(codes.Unavailable, "the user service does not answer: try again")
	case user.State != shared.Active:
		return status.Error(codes.FailedPrecondition, "the buyer may not order")
	}
	return nil
}

func (s *orders) keptAnswer(ctx context.Context, caller, key string, fingerprint []byte) (*pb.Order, error) {
	var before, response []byte
	if err := s.pool.QueryRow(ctx, s.kept, caller, key).Scan(&before, &response); err != nil {
		return nil, err
	}
	if !bytes.Equal(before, fingerprint) {
		return nil, status.Error(codes.AlreadyExists, "choose a new request id: this one was used with other content")
	}
	var order pb.Order
	return &order, proto.Unmarshal(response, &order)
}

// Answers are kept for a day.
func (s *orders) sweep(ctx context.Context) {
	for range time.Tick(10 * time.Minute) {
		if _, err := s.pool.Exec(ctx, "DELETE FROM idempotency_keys WHERE created_at < now() - interval '24 hours'"); err != nil {
			slog.Error("sweep failed", "error", err)
		}
	}
}

func observed(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	start, caller := time.Now(), &caller{}
	response, err := next(context.WithValue(ctx, callerKey{}, caller), request)
	if _, isStatus := status.FromError(err); err != nil && !isStatus {
		slog.Error("failed", "error", err)
		err = status.Error(codes.Internal, "internal error")
	}
	took, code := time.Since(start), status.Code(err).String()
	duration.WithLabelValues(info.FullMethod, code).Observe(took.Seconds())
	requestID := strings.Join(metadata.ValueFromIncomingContext(ctx, "x-request-id"), "")
	slog.Info("rpc", "method", info.FullMethod, "code", code, "duration", took, "caller", caller.id, "request_id", requestID)
	return response, err
}

func main() {
	file := shared.Must(os.Create(os.Getenv("LOG_FILE")))
	slog.SetDefault(slog.New(slog.NewJSONHandler(file, nil)))
	config := shared.Must(pgxpool.ParseConfig(os.Getenv("DATABASE_URL")))
	config.MaxConns = 10
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	pool := shared.Must(pgxpool.NewWithConfig(ctx, config))
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(mutual(""))), grpc.ChainUnaryInterceptor(observed, authenticated))
	// Under the names of the contract, whose messages have the same bytes.
	if os.Args[1] == "users" {
		service := pb.UserService_ServiceDesc
		service.ServiceName = "shop.user.v1.UserService"
		server.RegisterService(&service, &users{pool: pool})
	} else {
		service := pb.OrderService_ServiceDesc
		service.ServiceName = "shop.order.v1.OrderService"
		channel := shared.Must(grpc.NewClient(os.Getenv("USER_SERVICE_URL"), grpc.WithTransportCredentials(credentials.NewTLS(mutual("user-svc")))))
		served := &orders{pool: pool, users: channel, create: sql("create_order"), kept: sql("kept_answer")}
		go served.sweep(ctx)
		server.RegisterService(&service, served)
	}
	http.Handle("/metrics", promhttp.Handler())
	go http.Serve(shared.Must(net.Listen("tcp", "127.0.0.1:0")), nil)
	go func() {
		<-ctx.Done()
		server.GracefulStop()
	}()
	shared.Must(0, server.Serve(shared.Must(net.Listen("tcp", "127.0.0.1:"+os.Getenv("PORT")))))
}
