/* The version of the server and of its command line, which are released together. */
#ifndef HTTP_VERSION_H
#define HTTP_VERSION_H

#define SLUICE_VERSION "0.1.0"

#endif
