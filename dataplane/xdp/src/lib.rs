//! AF_XDP ports, the XDP program, worker threads.
