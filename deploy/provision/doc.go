// Package provision renders what provisions a host, an image or a cluster for a gateway: cloud-init user data, a
// Dockerfile fragment, Kubernetes objects, Windows group policy, a file of variables.
//
// # What is promised
//
// Every value is written in the quoting of its format, so that no class, URL or name can become a command, a key or a
// comment's end; and [Facts.Check] refuses before that what cannot be meant: control characters, URLs with credentials,
// roots that are no certificates. Roots are written anew from their bytes, so that nothing else in a file comes along.
//
// The outcome depends on the facts alone: the same facts render the same bytes, which can be kept in git and compared.
// It holds no secret, but for cloud-init where a token was given to be put into it; a token is handed to programs
// in a file that only root can read, or on standard input, never as an argument or in a layer of an image.
//
// Variables that name a CA file name the whole bundle of the system with our roots in it, since most programs take them
// in place of the system's roots and not beside them.
//
// # What is not here
//
// What the formats do when they are carried out is theirs: cloud-init, a shell, BuildKit, trust-manager, Windows. On a
// host, "exitgate enroll" does all that is done here and more (Java, browsers, the identity), and undoes it; cloud-init
// uses it. Nothing here reads a file or asks a gateway.
package provision
