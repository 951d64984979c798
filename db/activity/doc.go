// Package activity monitors a PostgreSQL server's sessions from outside: how many slots there are, which sessions have
// them, and whether the server is healthy. If it is not, the package names the application at fault and what to do. It
// can also end sessions, but only the chosen ones.
//
// Its guarantees are:
//
//   - It needs at most one connection, opened early and kept (Observer). It needs none if a running ddtb server shares
//     its own (Share and FindShared). So it still works when no slot is left.
//   - It works on PostgreSQL 12 and later, also with an ordinary role, and reports what that role can't see.
//   - Polling and judging are separate. A Snapshot is plain data. Assess, Diagnose, Summarise and PlanBudget are
//     functions of it that need no server.
//   - The statement that ends a session also checks that the session is still in the chosen state (Signal). A session
//     that became active in between continues.
//
// `ddtb db-connections --json` prints values of Status, Health, Diagnosis, Budget, Closing, Ending, Sample and Failure.
// JSON.md documents every field. Fields may be added, but are neither renamed nor removed.
//
// The package does not depend on the internals of strategies, on requests, pages or terminals.
package activity
