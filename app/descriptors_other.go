//go:build !unix

package app

// descriptors returns 0: this system has no relevant limit.
func descriptors() uint64 { return 0 }
