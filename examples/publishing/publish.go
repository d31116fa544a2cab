// Publishes to clients of fanwire from Go, by Redis or Valkey: go run publish.go 127.0.0.1:6379 odds:7 '{"home":1.85}'
// `fanwire script > publish.lua` writes the script that it needs. docs/records.md says what the arguments are.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
)

func main() {
	script, err := os.ReadFile("publish.lua")
	if err != nil {
		panic(err)
	}
	name, record := "c"+os.Args[2], `{"data":`+os.Args[3]+`}`
	kept := []string{"100", "300000"} // publications, milliseconds: what the hubs' channel says
	words := []string{"EVAL", string(script), "2", "fanwire:m:" + name, "fanwire:s:" + name, "fanwire:c:" + name,
		"PUBLISH", "", "0", "0", kept[0], kept[1], "604800000", "300000", "0", record}
	connection, err := net.Dial("tcp", os.Args[1])
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(connection, "*%d\r\n", len(words))
	for _, word := range words {
		fmt.Fprintf(connection, "$%d\r\n%s\r\n", len(word), word)
	}
	var epoch, offset uint64
	if _, err := fmt.Fscanf(bufio.NewReader(connection), "*2\r\n:%d\r\n:%d\r\n", &epoch, &offset); err != nil {
		panic(err)
	}
	fmt.Printf("%d-%d\n", epoch, offset) // its position
}
