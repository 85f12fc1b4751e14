mod mapping;
mod segments;

use super::*;

fn segments(req: &Request) -> Vec<(u64, u32)> {
    req.segments().map(|s| (s.paddr.0, s.len)).collect()
}

fn request(bios: Vec<Bio>) -> Request {
    Request::new(ReqOp::Read, bios, &QueueLimits::default()).unwrap()
}
