package db

import "time"

var started = time.Now()

// ticks returns the time of the monotonic clock, in nanoseconds, for atomic variables in which 0 means never. The wall
// clock would not do: when it is set forward by an hour, every running query would exceed query_timeout.
func ticks() int64 { return int64(time.Since(started) + time.Hour) }

// timeOf returns the time of ticks.
func timeOf(ticks int64) time.Time { return started.Add(time.Duration(ticks) - time.Hour) }
