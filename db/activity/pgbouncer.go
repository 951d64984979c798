package activity

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"ddtb/db"
)

// Pool is one of PgBouncer's pools: a database and a user, as SHOW POOLS lists it.
type Pool struct {
	Database      string `json:"database"`
	User          string `json:"user"`
	Mode          string `json:"mode"`           // session, transaction or statement
	ClientActive  int    `json:"client_active"`  // clients with a server connection, or without need of one
	ClientWaiting int    `json:"client_waiting"` // clients that queue for one
	ServerActive  int    `json:"server_active"`
	ServerIdle    int    `json:"server_idle"`
	ServerUsed    int    `json:"server_used"` // idle, to be tested before use
	MaxWait       Age    `json:"max_wait_seconds"`
}

// servers returns how many connections to the server the pool has.
func (p Pool) servers() int { return p.ServerActive + p.ServerIdle + p.ServerUsed }

// consoleName is the name of PgBouncer's console database.
const consoleName = "pgbouncer"

// AskPgBouncer adds the data of the PgBouncer whose console cc names: its pools, and its number of clients.
func (s *Snapshot) AskPgBouncer(ctx context.Context, cc *pgx.ConnConfig) error {
	cc = cc.Copy()
	cc.Database = consoleName
	cc.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol // its console supports no other
	conn, err := db.Connect(ctx, cc)
	if err == nil { // it only lets these users into its console
		err = s.askConsole(ctx, conn)
		db.Disconnect(conn)
	}
	if err != nil {
		return fmt.Errorf("ask PgBouncer for its pools (its stats_users must list %s): %w", cc.User, err)
	}
	return nil
}

func (s *Snapshot) askConsole(ctx context.Context, conn *pgx.Conn) error {
	rows, _ := conn.Query(ctx, "SHOW POOLS") // the error comes with the rows
	pools, err := pgx.CollectRows(rows, scanPool)
	if err != nil {
		return err
	}
	lists, err := consoleValues(ctx, conn, "SHOW LISTS")
	if err != nil {
		return err
	}
	config, err := consoleValues(ctx, conn, "SHOW CONFIG")
	if err != nil {
		return err
	}
	s.Pools, s.bouncer = pools, bouncerOf(config, pools)
	s.PoolClients = &Limit{Of: consoleName, Name: "max_client_conn", Max: s.bouncer.clients, Used: max(0, lists["used_clients"]-1)} // without this one
	return nil
}

// bouncer is what PgBouncer's configuration allows, and the pools that it has.
type bouncer struct {
	clients     int // max_client_conn
	poolSize    int // default_pool_size, of a database and a user
	perDatabase int // max_db_connections; 0: no bound
	pools       int // pairs of a database and a user
	databases   int
}

func bouncerOf(config map[string]int, pools []Pool) *bouncer {
	byDatabase := map[string]int{}
	for _, p := range pools {
		byDatabase[p.Database]++
	}
	ofConsole := byDatabase[consoleName]
	delete(byDatabase, consoleName)
	return &bouncer{
		clients: config["max_client_conn"], poolSize: config["default_pool_size"], perDatabase: config["max_db_connections"],
		pools: max(1, len(pools)-ofConsole), databases: max(1, len(byDatabase)),
	}
}

// servers returns the most connections that PgBouncer opens to the server.
func (b *bouncer) servers() int {
	most := b.poolSize * b.pools
	if b.perDatabase > 0 {
		most = min(most, b.perDatabase*b.databases)
	}
	return most
}

// consoleValues returns the numbers of a list of names and values.
func consoleValues(ctx context.Context, conn *pgx.Conn, show string) (map[string]int, error) {
	values := map[string]int{}
	rows, _ := conn.Query(ctx, show) // the error comes with the rows
	for rows.Next() {
		if v := rows.RawValues(); len(v) > 1 {
			values[string(v[0])], _ = strconv.Atoi(string(v[1])) // other values are 0
		}
	}
	return values, rows.Err()
}

// scanPool uses the columns' names, because each version adds columns in between.
func scanPool(row pgx.CollectableRow) (Pool, error) {
	column := map[string]string{}
	for i, f := range row.FieldDescriptions() {
		column[f.Name] = string(row.RawValues()[i])
	}
	number := func(name string) int {
		n, _ := strconv.Atoi(column[name]) // a column that a version lacks is 0
		return n
	}
	return Pool{
		Database: column["database"], User: column["user"], Mode: column["pool_mode"],
		ClientActive: number("cl_active"), ClientWaiting: number("cl_waiting"),
		ServerActive: number("sv_active"), ServerIdle: number("sv_idle"), ServerUsed: number("sv_used"),
		MaxWait: seconds(float64(number("maxwait")) + float64(number("maxwait_us"))/1e6),
	}, nil
}
