// What kafka_programs.py tells, with Go's sarama as Debian has it: produce, consume, and a member of a
// group. It comes without a SCRAM client; that is here (RFC 5802).
package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/Shopify/sarama"
)

var out sync.Mutex

func say(format string, args ...interface{}) {
	out.Lock()
	defer out.Unlock()
	fmt.Printf(format+"\n", args...)
}

// The code Kafka told, else what the library says.
func fail(err error) {
	word := "-"
	switch e := err.(type) {
	case sarama.KError:
		word = strconv.Itoa(int(e))
	case sarama.ProducerErrors:
		if code, is := e[0].Err.(sarama.KError); is {
			word = strconv.Itoa(int(code))
		}
	case *sarama.ConsumerError:
		if code, is := e.Err.(sarama.KError); is {
			word = strconv.Itoa(int(code))
		}
	}
	say("error %s %s", word, strings.Replace(err.Error(), "\n", " ", -1))
	os.Exit(1)
}

type scram struct {
	make           func() hash.Hash
	user, password string
	first, nonce   string
	signature      []byte
	begun, over    bool
}

func (s *scram) Begin(user, password, authzID string) error {
	random := make([]byte, 18)
	if _, err := rand.Read(random); err != nil {
		return err
	}
	s.user, s.password = user, password
	s.nonce = base64.StdEncoding.EncodeToString(random)
	return nil
}

func (s *scram) mac(key []byte, data string) []byte {
	m := hmac.New(s.make, key)
	m.Write([]byte(data))
	return m.Sum(nil)
}

func (s *scram) salted(salt []byte, rounds int) []byte {
	u := s.mac([]byte(s.password), string(salt)+"\x00\x00\x00\x01")
	sum := append([]byte(nil), u...)
	for i := 1; i < rounds; i++ {
		u = s.mac([]byte(s.password), string(u))
		for k := range sum {
			sum[k] ^= u[k]
		}
	}
	return sum
}

func attribute(message, name string) string {
	for _, part := range strings.Split(message, ",") {
		if strings.HasPrefix(part, name+"=") {
			return part[2:]
		}
	}
	return ""
}

func (s *scram) Step(challenge string) (string, error) {
	if !s.begun {
		s.begun = true
		s.first = "n=" + s.user + ",r=" + s.nonce
		return "n,," + s.first, nil
	}
	if s.signature != nil {
		s.over = true
		if attribute(challenge, "v") != base64.StdEncoding.EncodeToString(s.signature) {
			return "", errors.New("the server does not know the password")
		}
		return "", nil
	}
	nonce := attribute(challenge, "r")
	salt, err := base64.StdEncoding.DecodeString(attribute(challenge, "s"))
	rounds, bad := strconv.Atoi(attribute(challenge, "i"))
	if err != nil || bad != nil || !strings.HasPrefix(nonce, s.nonce) || nonce == s.nonce {
		return "", errors.New("not a server's first message: " + challenge)
	}
	salted := s.salted(salt, rounds)
	key := s.mac(salted, "Client Key")
	stored := s.make()
	stored.Write(key)
	last := "c=biws,r=" + nonce
	all := s.first + "," + challenge + "," + last
	for i, b := range s.mac(stored.Sum(nil), all) {
		key[i] ^= b
	}
	s.signature = s.mac(s.mac(salted, "Server Key"), all)
	return last + ",p=" + base64.StdEncoding.EncodeToString(key), nil
}

func (s *scram) Done() bool { return s.over }

func config() *sarama.Config {
	c := sarama.NewConfig()
	c.Version = sarama.V2_1_0_0
	c.ClientID = "sarama-test"
	c.Metadata.Retry.Max = 3
	c.Producer.Return.Successes = true
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Compression = map[string]sarama.CompressionCodec{
		"gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
		"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
	}[os.Getenv("KAFKA_CODEC")]
	if os.Getenv("KAFKA_IDEMPOTENT") == "1" {
		c.Producer.Idempotent = true
		c.Net.MaxOpenRequests = 1
	}
	c.Consumer.Return.Errors = true
	c.Consumer.MaxWaitTime = 100 * time.Millisecond
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Offsets.CommitInterval = 200 * time.Millisecond
	c.Consumer.Group.Session.Timeout = 10 * time.Second
	c.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	c.Consumer.Group.Rebalance.Timeout = 10 * time.Second
	if user := os.Getenv("KAFKA_USER"); user != "" {
		c.Net.SASL.Enable = true
		c.Net.SASL.User, c.Net.SASL.Password = user, os.Getenv("KAFKA_PASSWORD")
		c.Net.SASL.Mechanism = sarama.SASLMechanism(os.Getenv("KAFKA_MECHANISM"))
		c.Net.SASL.Handshake = true
		c.Net.SASL.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient {
			if c.Net.SASL.Mechanism == sarama.SASLTypeSCRAMSHA512 {
				return &scram{make: sha512.New}
			}
			return &scram{make: sha256.New}
		}
	}
	return c
}

// A client reports of all brokers only that there is none to ask; the login's own words come from
// a connection by itself.
func connect() sarama.Client {
	c := config()
	b := sarama.NewBroker(os.Getenv("KAFKA_BROKER"))
	if err := b.Open(c); err != nil {
		fail(err)
	}
	if _, err := b.Connected(); err != nil {
		fail(err)
	}
	b.Close()
	client, err := sarama.NewClient([]string{os.Getenv("KAFKA_BROKER")}, c)
	if err != nil {
		fail(err)
	}
	return client
}

func produce(topic string, count int, prefix string) {
	producer, err := sarama.NewSyncProducerFromClient(connect())
	if err != nil {
		fail(err)
	}
	for at := 0; at < count; at += 100 {
		var batch []*sarama.ProducerMessage
		for i := at; i < at+100 && i < count; i++ {
			batch = append(batch, &sarama.ProducerMessage{
				Topic: topic, Key: sarama.StringEncoder(fmt.Sprintf("k%d", i%7)),
				Value:   sarama.StringEncoder(fmt.Sprintf("%s%d", prefix, i)),
				Headers: []sarama.RecordHeader{{Key: []byte("from"), Value: []byte("sarama")}},
			})
		}
		if err := producer.SendMessages(batch); err != nil {
			fail(err)
		}
	}
	say("done %d", count)
	producer.Close()
}

// All partitions from their beginning, without a group.
func consume(topic string, count int) {
	consumer, err := sarama.NewConsumerFromClient(connect())
	if err != nil {
		fail(err)
	}
	partitions, err := consumer.Partitions(topic)
	if err != nil {
		fail(err)
	}
	records := make(chan *sarama.ConsumerMessage)
	for _, p := range partitions {
		pc, err := consumer.ConsumePartition(topic, p, sarama.OffsetOldest)
		if err != nil {
			fail(err)
		}
		go func() {
			for m := range pc.Messages() {
				records <- m
			}
		}()
		go func() {
			for e := range pc.Errors() {
				fail(e)
			}
		}()
	}
	for i := 0; i < count; i++ {
		m := <-records
		say("record %d %d %s", m.Partition, m.Offset, m.Value)
	}
}

type member struct{ topic string }

func (m member) Setup(s sarama.ConsumerGroupSession) error {
	parts := strings.Trim(fmt.Sprint(s.Claims()[m.topic]), "[]")
	say("assigned %s", parts)
	return nil
}

func (m member) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (m member) ConsumeClaim(s sarama.ConsumerGroupSession, c sarama.ConsumerGroupClaim) error {
	for r := range c.Messages() {
		say("record %d %d %s", r.Partition, r.Offset, r.Value)
		s.MarkMessage(r, "")
	}
	return nil
}

func group(topic, id string) {
	g, err := sarama.NewConsumerGroupFromClient(id, connect())
	if err != nil {
		fail(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
	}()
	go func() {
		for e := range g.Errors() {
			say("trouble %s", e)
		}
	}()
	for ctx.Err() == nil {
		if err := g.Consume(ctx, []string{topic}, member{topic}); err != nil && ctx.Err() == nil {
			fail(err)
		}
	}
	g.Close()
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
	}
}
