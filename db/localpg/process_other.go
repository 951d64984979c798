//go:build !linux

package localpg

import "os/exec"

// dieWithParent does nothing: this system has no such signal. The next Start takes over a server that outlives us.
func dieWithParent(*exec.Cmd) {}

func processesOf(data string) []int { return mainFirst(familyOn(data, listedByPS()), data) }
