/* The keyspaces of rows (one byte, in every row's key). 0 is the partition's own. */
#ifndef BROKER_KEYSPACE_H
#define BROKER_KEYSPACE_H

enum keyspace {
	KEYSPACE_PARTITION = 0, /* cluster: trim marks */
	KEYSPACE_CATALOG = 1,   /* cluster: streams, settings */
	KEYSPACE_RETAINED = 2,  /* stream partitions: topic -> offset, record */
	KEYSPACE_PRODUCER = 3,  /* stream partitions: producer id -> epoch, last five batches */
	KEYSPACE_QOS2 = 4,      /* stream partitions: client, epoch, packet id -> offset */
	KEYSPACE_SESSION = 5,   /* tables: client id -> session, subscriptions */
	KEYSPACE_CURSOR = 6,    /* tables: client id -> positions, and what is in flight */
	/* 7 is free: what is in flight is in the cursor's row, so that the two agree. */
	KEYSPACE_GROUP = 8,        /* tables: Kafka group id -> generation, members' protocol */
	KEYSPACE_GROUP_OFFSET = 9, /* tables: group id, stream, partition -> offset, metadata */
	KEYSPACE_PRODUCER_ID = 10, /* tables (the first): next block of producer ids */
	KEYSPACE_WILL = 11,        /* tables: client id -> will to publish, when */
	KEYSPACE_GROUP_STATE = 12  /* tables: Kafka group id -> its members and what they read */
};

#endif
