// A relay as Go's standard library makes it: io.Copy each way, which splices between TCP connections on Linux.
package main

import (
	"io"
	"log"
	"net"
	"os"
)

func pump(to, from *net.TCPConn, done chan<- bool) {
	io.Copy(to, from)
	to.CloseWrite()
	done <- true
}

func relay(client *net.TCPConn, target string) {
	defer client.Close()
	server, err := net.Dial("tcp", target)
	if err != nil {
		log.Print(err)
		return
	}
	defer server.Close()
	done := make(chan bool)
	go pump(server.(*net.TCPConn), client, done)
	go pump(client, server.(*net.TCPConn), done)
	<-done
	<-done
}

func main() {
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	for {
		client, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go relay(client.(*net.TCPConn), os.Args[2])
	}
}
