// Package deploy holds what puts exitgate on a server: a systemd unit, a container file and a compose file with
// Postgres. It promises that they start the same program with the same defaults as "exitgate run" does on a
// laptop, with as few rights as it can do its work with. It holds no code; its tests read the files, ask
// systemd-analyze about the unit, and hold their configuration to what the program accepts.
package deploy
