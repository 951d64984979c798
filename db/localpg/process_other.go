//go:build !linux

package localpg

import "os/exec"

// dieWithParent: there is no such thing here. A server that outlives us is taken over by the next Start.
func dieWithParent(*exec.Cmd) {}

func processesOf(data string) []int { return mainFirst(familyOn(data, listedByPS()), data) }
