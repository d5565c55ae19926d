package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"shop/bench/shared"
)

var (
	maxTokens = shared.Must(strconv.Atoi(os.Getenv("TOKEN_MEMORY")))
	staff     = []string{"SUPPORT", "ADMIN", "SERVICE"}
)

type caller struct {
	id      string
	isStaff bool
	expires time.Time
}

type callerKey struct{}

// callerIn returns what authenticated fills in, and observed reads after the call.
func callerIn(ctx context.Context) *caller { return ctx.Value(callerKey{}).(*caller) }

type claims struct {
	jwt.RegisteredClaims
	Session string   `json:"sid"`
	Roles   []string `json:"roles"`
}

var (
	keys   = shared.Must(keyfunc.NewDefault([]string{os.Getenv("JWKS_URL")}))
	parser = jwt.NewParser(jwt.WithValidMethods([]string{"EdDSA"}), jwt.WithIssuer(os.Getenv("TOKEN_ISSUER")),
		jwt.WithAudience(os.Getenv("TOKEN_AUDIENCE")), jwt.WithExpirationRequired(), jwt.WithLeeway(5*time.Second))
	// Verified tokens: a signature costs as much as the rest of a call.
	verified   = map[string]caller{}
	verifiedMu sync.RWMutex
)

func authenticated(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	header := metadata.ValueFromIncomingContext(ctx, "authorization")
	if len(header) != 1 || !strings.HasPrefix(header[0], "Bearer ") {
		return nil, status.Error(codes.Unauthenticated, "send an access token")
	}
	found, err := callerOf(header[0][7:])
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, "the access token is not valid: log in again")
	}
	*callerIn(ctx) = found
	return next(ctx, request)
}

func callerOf(token string) (caller, error) {
	verifiedMu.RLock()
	known, isKnown := verified[token]
	verifiedMu.RUnlock()
	if isKnown && time.Now().Before(known.expires) {
		return known, nil
	}
	var found claims
	parsed, err := parser.ParseWithClaims(token, &found, keys.Keyfunc)
	if err != nil {
		return caller{}, err
	}
	if parsed.Header["typ"] != "at+jwt" || found.Subject == "" || found.ID == "" || found.Session == "" {
		return caller{}, jwt.ErrTokenRequiredClaimMissing
	}
	isStaff := slices.ContainsFunc(found.Roles, func(role string) bool { return slices.Contains(staff, role) })
	known = caller{found.Subject, isStaff, found.ExpiresAt.Add(5 * time.Second)}
	verifiedMu.Lock()
	defer verifiedMu.Unlock()
	if len(verified) >= maxTokens {
		clear(verified)
	}
	if maxTokens > 0 {
		verified[token] = known
	}
	return known, nil
}

// mutual returns the configuration of a server, or of a client of the server with this name.
func mutual(server string) *tls.Config {
	folder := os.Getenv("TLS_FOLDER")
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(shared.Must(os.ReadFile(folder + "/ca.crt")))
	own := shared.Must(tls.LoadX509KeyPair(folder+"/tls.crt", folder+"/tls.key"))
	return &tls.Config{
		Certificates: []tls.Certificate{own}, RootCAs: pool, ServerName: server,
		ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13,
	}
}

func sql(name string) string {
	return string(shared.Must(os.ReadFile(os.Getenv("SQL_FOLDER") + "/" + name + ".sql")))
}
