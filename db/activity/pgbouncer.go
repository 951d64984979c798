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
		_ = conn.Close(ctx)
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
	used, err := consoleValue(ctx, conn, "SHOW LISTS", "used_clients")
	if err != nil {
		return err
	}
	b := &bouncer{}
	for name, value := range map[string]*int{"max_client_conn": &b.clients, "default_pool_size": &b.poolSize, "max_db_connections": &b.perDatabase} {
		if *value, err = consoleValue(ctx, conn, "SHOW CONFIG", name); err != nil {
			return err
		}
	}
	b.count(pools)
	s.Pools, s.bouncer = pools, b
	s.PoolClients = &Limit{Of: consoleName, Name: "max_client_conn", Max: b.clients, Used: max(0, used-1)} // without this one
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

func (b *bouncer) count(pools []Pool) {
	databases := map[string]bool{}
	for _, p := range pools {
		if p.Database != consoleName {
			b.pools++
			databases[p.Database] = true
		}
	}
	b.pools, b.databases = max(1, b.pools), max(1, len(databases))
}

// servers returns the most connections that PgBouncer opens to the server.
func (b *bouncer) servers() int {
	most := b.poolSize * b.pools
	if b.perDatabase > 0 {
		most = min(most, b.perDatabase*b.databases)
	}
	return most
}

// consoleValue returns one number of a list of names and values.
func consoleValue(ctx context.Context, conn *pgx.Conn, show, name string) (n int, err error) {
	rows, _ := conn.Query(ctx, show) // the error comes with the rows
	for rows.Next() {
		if v := rows.RawValues(); len(v) > 1 && string(v[0]) == name {
			n, _ = strconv.Atoi(string(v[1]))
		}
	}
	return n, rows.Err()
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
