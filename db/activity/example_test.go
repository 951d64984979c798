package activity_test

import (
	"context"
	"fmt"
	"time"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/activity"
)

// The database is usually that of the configuration: config.Load(config.FromOS("")), and then
// cfg.Databases["default"].
func exampleDatabase() config.Database { return activity.DatabaseForExamples() }

// A program that monitors its database keeps one Observer, opened early. It sees the server even if no slot is left for
// a new connection.
func ExampleCheckHealth() {
	observer, err := activity.NewObserver(exampleDatabase())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer observer.Close()
	ctx := activity.WithObserver(context.Background(), observer)

	health := activity.CheckHealth(ctx)
	fmt.Println(health.Level, "with", health.Slots.Usable(), "usable slots")
	for _, f := range health.Findings {
		fmt.Println(f.Level, f.What, "→", f.Do)
	}
	// Output: ok with 17 usable slots
}

// Monitor reports what a piece of work did to the connections: how many it opened, and how many it left open.
func ExampleMonitor() {
	observer, err := activity.NewObserver(exampleDatabase())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer observer.Close()
	ctx := activity.WithObserver(context.Background(), observer)

	m := activity.Monitor(ctx, "bulk_operation")
	bulkOperation(ctx)
	usage := m.End()

	fmt.Println(usage.Name, "opened", usage.Opened, "connections and left", usage.OwnAfter-usage.OwnBefore, "open")
	// Output: bulk_operation opened 0 connections and left 0 open
}

func bulkOperation(context.Context) {}

// At its start, a replica checks whether the fleet fits the server.
func ExamplePlanBudget() {
	slots := activity.Slots{Max: 100, Reserved: 3}
	cfg := config.Database{Strategy: db.Pool, Pool: db.PoolSettings{MaxSize: 20}}
	b := activity.PlanBudget(cfg, false, 3, 10, slots)
	fmt.Println(b.Fits)
	fmt.Println(b.Sum())
	fmt.Println(b.Advice())
	// Output:
	// false
	// 3 × (20 + 1) × 2 while deploying + 10 extras = 136, of 97 usable slots
	// set pool.max_size to 13 at most; or raise max_connections from 100 to 139 at least (this needs a restart of PostgreSQL); or run fewer replicas, or put PgBouncer in front
}

// Sessions that have been idle for long are chosen, then ended, each only if it is still idle.
func ExampleEnd() {
	observer, err := activity.NewObserver(exampleDatabase())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer observer.Close()
	ctx := context.Background()
	now, err := observer.Snapshot(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	idle := activity.Filter{Application: "shop", OlderThan: 5 * time.Minute}
	report, err := activity.End(ctx, observer, activity.Plan(now, idle), idle)
	fmt.Println(report.Count(activity.Closed), "closed", err)
	// Output: 0 closed <nil>
}
