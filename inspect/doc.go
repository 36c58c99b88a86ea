// Package inspect turns bytes into facts.
package inspect
