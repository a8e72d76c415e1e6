// Package admin is the operator's HTTP interface: health, readiness, metrics
// and the API behind gantry status, bridges, clients and queue.
//
// It knows nothing of the parts that it shows. The gateway gives it [Deps],
// plain functions that return the structs of this package, and the JSON answers
// are those structs. [Client] is the other end, for the command line.
//
// The package guarantees that nothing under /api/ answers without the bearer
// token, that the open endpoints answer only to the machine itself, and that a
// page in a browser on that machine can use neither (Host and Origin checks).
// Answers carry no secrets. It leaves to others: what ready means, and where the
// figures come from.
package admin
