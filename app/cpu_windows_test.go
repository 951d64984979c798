package app_test

import "time"

// cpuOf is how long once takes to run two hundred times: an upper bound of its processor time.
func cpuOf(once func()) time.Duration {
	began := time.Now()
	for range 200 {
		once()
	}
	return time.Since(began)
}
