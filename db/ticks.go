package db

import "time"

var started = time.Now()

// ticks returns the time of the monotonic clock, in nanoseconds, for atomic variables in which 0 means never. The wall
// clock would not do: when it is set forward by an hour, every running query would exceed query_timeout.
func ticks() int64 { return int64(time.Since(started) + time.Hour) }

// timeOf returns the time of n ticks, by the wall clock of now: it may have been set since the program started.
func timeOf(n int64) time.Time { return time.Now().Add(time.Duration(n - ticks())) }
