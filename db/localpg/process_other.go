//go:build unix && !linux

package localpg

import "syscall"

// dieWithParent: there is no such thing here. A server that outlives us is taken over by the next Start.
func dieWithParent(*syscall.SysProcAttr) {}

func processesOf(data string) []int { return mainFirst(familyOn(data, listedByPS()), data) }
