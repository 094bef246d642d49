// What kafka_programs.py tells, with Go's kafka-go as Debian has it (0.2.1): produce, consume, and a
// member of a group; beside it what a connection by itself does. It knows no logins.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/gzip"
	"github.com/segmentio/kafka-go/lz4"
	"github.com/segmentio/kafka-go/snappy"
)

var (
	out    sync.Mutex
	broker = os.Getenv("KAFKA_BROKER")
	within = context.Background()
)

func say(format string, args ...interface{}) {
	out.Lock()
	defer out.Unlock()
	fmt.Printf(format+"\n", args...)
}

// The code Kafka told, else what the library says.
func fail(err error) {
	word := "-"
	if code, is := err.(kafka.Error); is {
		word = strconv.Itoa(int(code))
	}
	say("error %s %s", word, strings.Replace(err.Error(), "\n", " ", -1))
	os.Exit(1)
}

func check(err error) {
	if err != nil {
		fail(err)
	}
}

func codec() kafka.CompressionCodec {
	switch os.Getenv("KAFKA_CODEC") {
	case "gzip":
		return gzip.NewCompressionCodec()
	case "snappy":
		return snappy.NewCompressionCodec()
	case "lz4":
		return lz4.NewCompressionCodec()
	}
	return nil
}

func produce(topic string, count int, prefix string) {
	w := kafka.NewWriter(kafka.WriterConfig{
		Brokers: []string{broker}, Topic: topic, Balancer: &kafka.Hash{}, MaxAttempts: 2,
		BatchTimeout: 10 * time.Millisecond, RequiredAcks: -1, CompressionCodec: codec(),
	})
	for at := 0; at < count; at += 100 {
		var batch []kafka.Message
		for i := at; i < at+100 && i < count; i++ {
			batch = append(batch, kafka.Message{
				Key:   []byte(fmt.Sprintf("k%d", i%7)),
				Value: []byte(fmt.Sprintf("%s%d", prefix, i)),
			})
		}
		check(w.WriteMessages(within, batch...))
	}
	check(w.Close())
	say("done %d", count)
}

func dial() *kafka.Conn {
	c, err := kafka.Dial("tcp", broker)
	check(err)
	return c
}

func partitions(topic string) []kafka.Partition {
	c := dial()
	defer c.Close()
	found, err := c.ReadPartitions(topic)
	check(err)
	return found
}

// All partitions from their beginning, without a group.
func consume(topic string, count int) {
	records := make(chan kafka.Message)
	for _, p := range partitions(topic) {
		r := kafka.NewReader(kafka.ReaderConfig{
			Brokers: []string{broker}, Topic: topic, Partition: p.ID, MinBytes: 1,
			MaxBytes: 1 << 20, MaxWait: 100 * time.Millisecond,
		})
		go func() {
			for {
				m, err := r.ReadMessage(within)
				check(err)
				records <- m
			}
		}()
	}
	for i := 0; i < count; i++ {
		m := <-records
		say("record %d %d %s", m.Partition, m.Offset, m.Value)
	}
}

// The library tells of what a member is assigned in its log only.
type logged struct{}

var (
	subscribed = regexp.MustCompile(`subscribed to partitions: map\[(.*)\]`)
	offset     = regexp.MustCompile(`:-?\d+`)
)

func (logged) Write(line []byte) (int, error) {
	if found := subscribed.FindSubmatch(line); found != nil {
		say("assigned %s", offset.ReplaceAllString(string(found[1]), ""))
	}
	return len(line), nil
}

type troubled struct{}

func (troubled) Write(line []byte) (int, error) {
	say("trouble %s", strings.TrimSpace(string(line)))
	return len(line), nil
}

func group(topic, id string) {
	r := kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{broker}, Topic: topic, GroupID: id, MinBytes: 1, MaxBytes: 1 << 20,
		MaxWait: 100 * time.Millisecond, HeartbeatInterval: 500 * time.Millisecond,
		CommitInterval: 200 * time.Millisecond, SessionTimeout: 10 * time.Second,
		RebalanceTimeout: 10 * time.Second,
		Logger:           log.New(logged{}, "", 0), ErrorLogger: log.New(troubled{}, "", 0),
	})
	ctx, cancel := context.WithCancel(within)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
	}()
	for {
		m, err := r.ReadMessage(ctx)
		if ctx.Err() != nil {
			break
		}
		check(err)
		say("record %d %d %s", m.Partition, m.Offset, m.Value)
	}
	check(r.Close())
}

func leader(topic string) *kafka.Conn {
	c, err := kafka.DialLeader(within, "tcp", broker, topic, 0)
	check(err)
	check(c.SetDeadline(time.Now().Add(10 * time.Second)))
	return c
}

// A topic from its creation to its end, all by connections: "KEY VALUE" lines.
func conn(topic string) {
	c := dial()
	check(c.CreateTopics(kafka.TopicConfig{
		Topic: topic, NumPartitions: 2, ReplicationFactor: 1,
		ConfigEntries: []kafka.ConfigEntry{{ConfigName: "retention.ms", ConfigValue: "3600000"}},
	}))
	say("partitions %d", len(partitions(topic)))
	again := c.CreateTopics(kafka.TopicConfig{Topic: topic, NumPartitions: 2, ReplicationFactor: 1})
	say("again %v", again == nil) // it takes 36 for success
	at := leader(topic)
	times := []time.Time{time.Unix(1600000000, 5e6), time.Unix(1600000010, 0)}
	_, err := at.WriteMessages(kafka.Message{Key: []byte("a"), Value: []byte("one"), Time: times[0]},
		kafka.Message{Key: []byte("a"), Time: times[1]}, kafka.Message{Value: []byte("three")})
	check(err)
	first, last, err := at.ReadOffsets()
	check(err)
	say("offsets %d %d", first, last)
	found, err := at.ReadOffset(times[0].Add(time.Second))
	check(err)
	say("time %d", found)
	_, err = at.Seek(0, kafka.SeekAbsolute)
	check(err)
	batch := at.ReadBatch(1, 1<<20)
	for i := 0; i < 3; i++ {
		m, err := batch.ReadMessage()
		check(err)
		old := ""
		if i < 2 {
			old = fmt.Sprint(m.Time.Equal(times[i]))
		}
		say("message %d %s=%s %s", m.Offset, m.Key, m.Value, old)
	}
	check(batch.Close())
	_, err = at.Seek(2, kafka.SeekAbsolute)
	check(err)
	m, err := at.ReadMessage(10) // more than it asked for is given
	check(err)
	say("third %d %s", m.Offset, m.Value)
	_, err = at.WriteMessages(kafka.Message{Value: make([]byte, 5<<20)})
	word := "-"
	if code, is := err.(kafka.Error); is {
		word = strconv.Itoa(int(code))
	}
	say("large %s", word)
	check(c.DeleteTopics(topic))
	all, err := c.ReadPartitions()
	check(err)
	gone := true
	for _, p := range all {
		gone = gone && p.Topic != topic
	}
	say("gone %v", gone)
}

func main() {
	args := os.Args[1:]
	switch args[0] {
	case "produce":
		count, _ := strconv.Atoi(args[2])
		produce(args[1], count, args[3])
	case "consume":
		count, _ := strconv.Atoi(args[2])
		consume(args[1], count)
	case "group":
		group(args[1], args[2])
	case "conn":
		conn(args[1])
	}
}
