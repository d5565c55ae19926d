// Package shared has what both forms of the peer do alike: rows to messages, amounts.
package shared

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/shopspring/decimal"
	"google.golang.org/genproto/googleapis/type/money"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"shop/bench/pb"
)

const (
	// GetUser is the method that an order service asks for the buyer.
	GetUser = "/shop.user.v1.UserService/GetUser"
	// Active is the state of a user who may order.
	Active = 1
)

var (
	states = map[string]int32{"ACTIVE": Active, "SUSPENDED": 2, "DELETED": 3}
	roles  = map[string]int32{"USER": 1, "SUPPORT": 2, "ADMIN": 3, "SERVICE": 4}
)

// Item is a line of an order as the table has it.
type Item struct {
	ProductID string `json:"productId"`
	Name      string `json:"name"`
	Quantity  int32  `json:"quantity"`
	UnitPrice string `json:"unitPrice"`
}

// FindUser returns a user, or pgx.ErrNoRows.
func FindUser(ctx context.Context, pool *pgxpool.Pool, id uuid.UUID) (*pb.User, error) {
	var (
		user             pb.User
		profile          map[string]any
		state            string
		names            []string
		created, updated time.Time
		version          int
	)
	row := pool.QueryRow(ctx, `SELECT email, display_name, profile, state, roles, created_at, updated_at, version
		FROM users WHERE id = $1`, id)
	err := row.Scan(&user.Email, &user.DisplayName, &profile, &state, &names, &created, &updated, &version)
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

// Price returns an order with its totals, its items as the table has them, and its total.
func Price(request *pb.CreateOrderRequest) (*pb.Order, []Item, decimal.Decimal) {
	now := timestamppb.Now()
	order := &pb.Order{
		Id: uuid.NewString(), UserId: request.UserId, Status: 1, Etag: "v1", CreatedAt: now, UpdatedAt: now,
	}
	total, items := decimal.Zero, []Item{}
	for _, line := range request.Items {
		price := decimal.New(line.UnitPrice.GetUnits(), 0).Add(decimal.New(int64(line.UnitPrice.GetNanos()), -9))
		sum := price.Mul(decimal.New(int64(line.Quantity), 0))
		total = total.Add(sum)
		items = append(items, Item{line.ProductId, line.Name, line.Quantity, price.String()})
		order.Items = append(order.Items, &pb.OrderItem{
			ProductId: line.ProductId, Name: line.Name, Quantity: line.Quantity,
			UnitPrice: toMoney(price, request.CurrencyCode), TotalPrice: toMoney(sum, request.CurrencyCode),
		})
	}
	order.TotalAmount = toMoney(total, request.CurrencyCode)
	return order, items, total
}

func toMoney(amount decimal.Decimal, currency string) *money.Money {
	units := amount.IntPart()
	nanos := amount.Sub(decimal.New(units, 0)).Shift(9).IntPart()
	return &money.Money{CurrencyCode: currency, Units: units, Nanos: int32(nanos)}
}

// Must returns the value; an error ends the program.
func Must[T any](value T, err error) T {
	if err != nil {
		slog.Error("failed", "error", err)
		os.Exit(1)
	}
	return value
}
