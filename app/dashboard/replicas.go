package dashboard

import (
	"strconv"

	"ddtb/db"
)

// replicas lists the servers of reads. Without replicas the table is omitted.
func (p *picture) replicas(all []db.ReplicaStat) {
	for _, r := range all {
		state := "serves"
		if !r.Serves {
			state = "passed by: " + r.Why
		}
		p.Tables["replicas"] = append(p.Tables["replicas"], []string{
			r.Host, age(r.Lag), strconv.FormatInt(r.Reads, 10), strconv.FormatInt(r.Failed+r.Behind, 10), state,
		})
	}
}
