// Command ddtb reproduces the ways in which a web application runs PostgreSQL out of connections, and fixes each.
package main

func main() {}
